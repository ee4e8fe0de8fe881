package main

// This file owns the layout of the data directory and makes sure that only one
// process uses it. It must not know what the files contain.

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// dataDir is an absolute path.
type dataDir string

func (d dataDir) path(elem ...string) string {
	return filepath.Join(append([]string{string(d)}, elem...)...)
}

func (d dataDir) etcd() string       { return d.path("etcd") }
func (d dataDir) kubeconfig() string { return d.path("kubeconfig") }
func (d dataDir) log() string        { return d.path("control-plane.log") }
func (d dataDir) pki() string        { return d.path("pki") }
func (d dataDir) port() string       { return d.path("port") }

// etcdSocket is relative to the data directory, see openDataDir.
const etcdSocket = "run/etcd.sock"

// openDataDir creates the directory if needed, takes its lock and makes it the
// working directory. The lock goes away with the process, however it ends.
//
// The working directory matters because the path of a Unix socket is limited to
// about 100 bytes, which the temporary directory of a test easily exceeds.
func openDataDir(path string) (dataDir, *os.File, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", nil, err
	}
	d := dataDir(abs)
	for _, dir := range []string{abs, d.path("run"), d.pki()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return "", nil, fmt.Errorf("cannot create the data directory: %w", err)
		}
	}
	lock, err := os.OpenFile(d.path("lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return "", nil, fmt.Errorf("cannot lock the data directory: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer lock.Close()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return "", nil, fmt.Errorf("cannot lock the data directory %s: %w", abs, err)
		}
		holder := "another control-plane"
		if pid, err := io.ReadAll(io.LimitReader(lock, 32)); err == nil && len(pid) > 0 {
			holder += " (pid " + strings.TrimSpace(string(pid)) + ")"
		}
		return "", nil, fmt.Errorf("the data directory %s is in use by %s: stop it or choose another --data-dir", abs, holder)
	}
	// The process id is for the message above only; the lock itself is the flock.
	if err := lock.Truncate(0); err == nil {
		_, _ = lock.WriteAt(fmt.Appendln(nil, os.Getpid()), 0)
	}
	if err := os.Chdir(abs); err != nil {
		return "", nil, err
	}
	return d, lock, nil
}

// replaceFile writes a file so that a crash leaves either the old or the new
// content, and leaves it alone if it has that content already.
func replaceFile(path string, content []byte) error {
	if old, err := os.ReadFile(path); err == nil && string(old) == string(content) {
		return nil
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(content)
	if err == nil {
		err = tmp.Sync()
	}
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}
