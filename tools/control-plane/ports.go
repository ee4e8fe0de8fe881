package main

// This file picks the port of the API server and binds it. The listener is
// handed on and never reopened, so no other process can take the port between
// the choice and its use. The rest of the control plane uses no port at all.

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
)

const (
	// firstPort and lastPort lie below the range from which kernels pick ports
	// for outgoing connections, so a kept port is seldom lost over a restart.
	firstPort = 26443
	lastPort  = 27442
)

// listen binds the port asked for. With 0 it binds the one kept in the file, or
// else a free one. It keeps the port in the file for the next start.
func listen(want int, file string) (net.Listener, error) {
	listener, err := bind(want, file)
	if err != nil {
		return nil, err
	}
	port := listener.Addr().(*net.TCPAddr).Port
	if err := replaceFile(file, fmt.Appendln(nil, port)); err != nil {
		listener.Close()
		return nil, fmt.Errorf("cannot keep the port: %w", err)
	}
	return listener, nil
}

func bind(want int, file string) (net.Listener, error) {
	if want != 0 {
		listener, err := bindPort(want)
		if errors.Is(err, syscall.EADDRINUSE) {
			return nil, fmt.Errorf("port %d on 127.0.0.1 is taken: stop the program that listens there, choose another --port, or leave it out to get a free one", want)
		}
		if err != nil {
			return nil, fmt.Errorf("cannot listen on port %d: %w", want, err)
		}
		return listener, nil
	}
	if kept := keptPort(file); kept != 0 {
		if listener, err := bindPort(kept); err == nil {
			return listener, nil
		}
	}
	for port := firstPort; port <= lastPort; port++ {
		listener, err := bindPort(port)
		if err == nil {
			return listener, nil
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			return nil, fmt.Errorf("cannot listen on port %d: %w", port, err)
		}
	}
	return nil, fmt.Errorf("no port from %d to %d is free on 127.0.0.1: choose one with --port", firstPort, lastPort)
}

func bindPort(port int) (net.Listener, error) {
	return net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
}

// keptPort returns 0 if there is none; a damaged file only costs the old port.
func keptPort(file string) int {
	content, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	port, err := strconv.Atoi(strings.TrimSpace(string(content)))
	if err != nil || port < 1 || port > 65535 {
		return 0
	}
	return port
}
