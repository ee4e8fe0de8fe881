package main

// This file runs etcd as a single member. It listens on a Unix socket inside
// the data directory only: no port to collide on, and nobody without access to
// the directory can read the store behind the API server's back.

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// etcdEndpoint is relative to the working directory, see openDataDir.
const etcdEndpoint = "unix://" + etcdSocket

// startEtcd returns when etcd serves reads and writes.
func startEtcd(ctx context.Context, dir string) (*embed.Etcd, error) {
	// The log is written ahead in files of this size, two at a time; the default
	// of 64 MB each is a lot for a directory that lives for one test run.
	wal.SegmentSizeBytes = 8 << 20

	logConfig := zap.NewProductionConfig()
	logConfig.Encoding = "console"
	logConfig.EncoderConfig.EncodeTime = zapcore.ISO8601TimeEncoder
	logConfig.Level = zap.NewAtomicLevelAt(zap.WarnLevel)
	logConfig.DisableStacktrace = true // an orderly stop logs errors, too
	logger, err := logConfig.Build()
	if err != nil {
		return nil, err
	}

	cfg := embed.NewConfig()
	cfg.Dir = dir
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(logger.Named("etcd"))
	cfg.ListenClientUrls = []url.URL{{Scheme: "unix", Host: "run", Path: "/etcd.sock"}}
	// A single member has no peers to listen for. It must advertise some
	// addresses all the same; nothing ever connects to them.
	cfg.ListenPeerUrls = nil
	nowhere := url.URL{Scheme: "http", Host: "127.0.0.1:0"}
	cfg.AdvertiseClientUrls = []url.URL{nowhere}
	cfg.AdvertisePeerUrls = []url.URL{nowhere}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	// A single member elects itself; these only say how soon after the start.
	cfg.TickMs = 20
	cfg.ElectionMs = 100
	cfg.EnableGRPCGateway = false
	// Left at zero, etcd warns of each request as slow.
	cfg.WarningUnaryRequestDuration = embed.DefaultWarningUnaryRequestDuration

	etcd, err := embed.StartEtcd(cfg)
	if err != nil {
		return nil, fmt.Errorf("cannot start etcd: %w", err)
	}
	select {
	case <-etcd.Server.ReadyNotify():
		return etcd, nil
	case err = <-etcd.Err():
	case <-etcd.Server.StopNotify():
		err = errors.New("it stopped")
	case <-ctx.Done():
		err = ctx.Err()
	case <-time.After(time.Minute):
		err = errors.New("it was not ready after a minute")
	}
	etcd.Close()
	return nil, fmt.Errorf("cannot start etcd: %w", err)
}
