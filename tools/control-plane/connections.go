package main

// This file wraps the listener of the API server so that its connections can be
// dropped. The server waits up to a minute for a request that hangs, for
// instance in a call of an admission webhook; a stop must not take that long.

import (
	"net"
	"sync"
)

// droppableListener knows the open connections that it accepted.
type droppableListener struct {
	net.Listener
	mu      sync.Mutex
	open    map[net.Conn]struct{}
	dropped bool
}

func newDroppableListener(l net.Listener) *droppableListener {
	return &droppableListener{Listener: l, open: map[net.Conn]struct{}{}}
}

func (l *droppableListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dropped {
		_ = conn.Close()
	} else {
		l.open[conn] = struct{}{}
	}
	return &droppableConn{Conn: conn, listener: l}, nil
}

// drop closes all connections, those to come included. The requests on them are
// cancelled by that.
func (l *droppableListener) drop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dropped = true
	for conn := range l.open {
		_ = conn.Close()
	}
	clear(l.open)
}

type droppableConn struct {
	net.Conn
	listener *droppableListener
}

func (c *droppableConn) Close() error {
	c.listener.mu.Lock()
	delete(c.listener.open, c.Conn)
	c.listener.mu.Unlock()
	return c.Conn.Close()
}
