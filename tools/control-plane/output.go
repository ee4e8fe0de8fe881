package main

// This file separates what the user is to read from what the components log.
// Kubernetes, etcd and gRPC write to standard error, some of it before main
// starts, so the file descriptors themselves are turned over to the log file.

import (
	"fmt"
	"io"
	"os"
	"runtime/debug"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/grpclog"
	"k8s.io/klog/v2"
)

// userStdout and userStderr are the streams that the process was started with.
var (
	userStdout = os.Stdout
	userStderr = os.Stderr
)

// A log bigger than this is set aside at the next start.
const maxLogSize = 16 << 20

// redirectOutput sends all that is written to the file descriptors 1 and 2 to
// the log file. Crashes still show on the user's standard error.
func redirectOutput(path string) error {
	if info, err := os.Stat(path); err == nil && info.Size() > maxLogSize {
		if err := os.Rename(path, path+".old"); err != nil {
			return err
		}
	}
	log, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("cannot open the log: %w", err)
	}
	defer log.Close()
	for _, stream := range []struct {
		fd   int
		name string
		user **os.File
	}{{1, "stdout", &userStdout}, {2, "stderr", &userStderr}} {
		dup, err := unix.FcntlInt(uintptr(stream.fd), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			return fmt.Errorf("cannot keep %s: %w", stream.name, err)
		}
		if err := unix.Dup2(int(log.Fd()), stream.fd); err != nil {
			return fmt.Errorf("cannot redirect %s: %w", stream.name, err)
		}
		*stream.user = os.NewFile(uintptr(dup), stream.name)
	}
	if err := debug.SetCrashOutput(userStderr, debug.CrashOptions{}); err != nil {
		return err
	}
	// gRPC warns of each connection that the API server closes after a probe of
	// etcd, one for each resource.
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, os.Stderr))
	// klog.Fatal ends the process from anywhere inside a component.
	klog.OsExit = func(code int) {
		fmt.Fprintf(userStderr, "control-plane: a component failed, see %s\n", path)
		os.Exit(code)
	}
	return nil
}
