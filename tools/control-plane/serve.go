package main

// This file starts the parts in order, says when they can be used, and stops
// them in the opposite order within a bounded time. How a part works is the
// business of its own file.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"k8s.io/klog/v2"
)

type serveOptions struct {
	dataDir       string
	port          int
	exitWithStdin bool
}

const (
	// Requests get this long to end by themselves after a stop is asked for.
	requestGrace = 2 * time.Second
	// The parts above etcd get this long in all. Losing them is harmless, so etcd
	// is closed then in any case: that is what keeps the data clean.
	partsGrace = requestGrace + time.Second
	// The process ends after this long whatever happens; etcd's log makes up for
	// an unclean end at the next start.
	stopLimit = 9 * time.Second
)

// errStop is the cause of an orderly stop.
var errStop = errors.New("stop requested")

// serve runs the control plane until it is told to stop or a part fails.
func serve(o serveOptions) error {
	dir, lock, err := openDataDir(o.dataDir)
	if err != nil {
		return err
	}
	defer lock.Close()
	bound, err := listen(o.port, dir.port())
	if err != nil {
		return err
	}
	defer bound.Close()
	listener := newDroppableListener(bound)
	if err := redirectOutput(dir.log()); err != nil {
		return err
	}
	defer klog.Flush()
	limitMemory()

	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(errStop)
	stopOnRequest(cancel, o.exitWithStdin)
	context.AfterFunc(ctx, func() {
		time.AfterFunc(stopLimit, func() {
			fmt.Fprintf(userStderr, "control-plane: did not stop within %s, see %s\n", stopLimit, dir.log())
			klog.Flush()
			os.Exit(1)
		})
	})

	if err := runParts(ctx, cancel, dir, listener); err != nil && !errors.Is(err, errStop) && !errors.Is(context.Cause(ctx), errStop) {
		return fmt.Errorf("%w (log: %s)", err, dir.log())
	}
	return nil
}

// stopOnRequest ends the context on a signal, or when standard input ends.
func stopOnRequest(cancel context.CancelCauseFunc, withStdin bool) {
	// More signals while stopping are swallowed: Ctrl-C in a terminal reaches
	// the whole process group, and its leader often passes it on once more.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		<-signals
		cancel(errStop)
	}()
	if withStdin {
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			cancel(errStop)
		}()
	}
}

// runParts returns when all parts have stopped, with the reason.
func runParts(ctx context.Context, cancel context.CancelCauseFunc, dir dataDir, listener *droppableListener) error {
	p, err := ensurePKI(dir.pki(), serviceIP)
	if err != nil {
		return err
	}
	if err := p.writeKubeconfig(dir.kubeconfig(), listener.Addr().(*net.TCPAddr).Port); err != nil {
		return fmt.Errorf("cannot write the kubeconfig: %w", err)
	}
	etcd, err := startEtcd(ctx, dir.etcd())
	if err != nil {
		return err
	}
	defer etcd.Close()

	server, err := startAPIServer(ctx, listener, p)
	if err != nil {
		return fmt.Errorf("cannot start the API server: %w", err)
	}
	serverDone := make(chan struct{})
	go func() {
		defer close(serverDone)
		if err := <-server.stopped; ctx.Err() == nil {
			cancel(fmt.Errorf("the API server stopped: %w", orUnknown(err)))
		}
	}()
	watchEtcd(ctx, cancel, etcd)

	controllersDone := make(chan struct{})
	go func() {
		defer close(controllersDone)
		if err := runControllers(ctx, server, p); err != nil {
			cancel(err)
		}
	}()

	<-ctx.Done()
	time.AfterFunc(requestGrace, listener.drop)
	grace := time.After(partsGrace)
	for _, done := range []chan struct{}{controllersDone, serverDone} {
		select {
		case <-done:
		case <-grace:
			klog.Info("not all parts stopped in time, closing etcd now")
			return context.Cause(ctx)
		}
	}
	return context.Cause(ctx)
}

// runControllers starts the controllers as soon as the API server answers, and
// prints "ready" once all of it works.
func runControllers(ctx context.Context, server *apiServer, p *pki) error {
	if err := waitForAPI(ctx, server.loopback); err != nil {
		return err
	}
	c, err := newControllers(ctx, server.loopback, p.caCert)
	if err != nil {
		return err
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		c.run(ctx)
	}()
	err = waitUntilReady(ctx, server.loopback, c)
	if err == nil {
		fmt.Fprintln(userStdout, "ready")
		returnStartupMemory()
		<-stopped
	}
	return err
}

// watchEtcd ends the context if etcd fails while running.
func watchEtcd(ctx context.Context, cancel context.CancelCauseFunc, etcd *embed.Etcd) {
	go func() {
		select {
		case <-ctx.Done():
		case err := <-etcd.Err():
			cancel(fmt.Errorf("etcd failed: %w", orUnknown(err)))
		case <-etcd.Server.StopNotify():
			cancel(errors.New("etcd stopped"))
		}
	}()
}

func orUnknown(err error) error {
	if err == nil {
		return errors.New("for no known reason")
	}
	return err
}
