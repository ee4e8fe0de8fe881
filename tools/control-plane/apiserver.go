package main

// This file runs the kube-apiserver with the settings of this control plane. It
// differs from its upstream command only in that it takes a context and a bound
// listener, and hands out the client configuration for use inside the process.

import (
	"context"
	"fmt"
	"net"

	"github.com/spf13/pflag"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/client-go/rest"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
	"k8s.io/kubernetes/cmd/kube-apiserver/app/options"
)

// serviceCIDR is where Services get their cluster IPs, and serviceIP the first
// of them, the one of the Service "kubernetes". Nothing answers there.
const serviceCIDR = "10.96.0.0/16"

var serviceIP = net.IPv4(10, 96, 0, 1)

const serviceAccountIssuer = "https://kubernetes.default.svc.cluster.local"

type apiServer struct {
	// loopback is a client configuration with all rights.
	loopback *rest.Config
	// stopped gets the result once the server has ended.
	stopped <-chan error
}

// startAPIServer returns once the server is set up; it may not answer yet. The
// server stops when the context ends.
func startAPIServer(ctx context.Context, listener net.Listener, p *pki) (*apiServer, error) {
	s := options.NewServerRunOptions()
	flags := pflag.NewFlagSet("kube-apiserver", pflag.ContinueOnError)
	sets := s.Flags()
	for _, set := range sets.FlagSets {
		flags.AddFlagSet(set)
	}
	port := listener.Addr().(*net.TCPAddr).Port
	if err := flags.Parse([]string{
		"--etcd-servers=" + etcdEndpoint,

		"--bind-address=127.0.0.1",
		"--advertise-address=127.0.0.1",
		fmt.Sprintf("--secure-port=%d", port),
		"--tls-cert-file=" + p.serverCert,
		"--tls-private-key-file=" + p.serverKey,
		"--client-ca-file=" + p.caCert,

		"--authorization-mode=RBAC",
		"--service-account-issuer=" + serviceAccountIssuer,
		"--service-account-key-file=" + p.serviceAccountKey,
		"--service-account-signing-key-file=" + p.serviceAccountKey,

		"--service-cluster-ip-range=" + serviceCIDR,
		// Endpoints may not have loopback addresses, so the Service "kubernetes"
		// gets none; with any other value the server complains for ever.
		"--endpoint-reconciler-type=none",

		"--allow-privileged=true", // left to Pod Security admission, as in most clusters
		"--profiling=false",
		"--shutdown-delay-duration=0s",
		// Without this, open watches are not told to end, and hold up the stop.
		"--shutdown-watch-termination-grace-period=1s",
	}); err != nil {
		return nil, err
	}
	s.SecureServing.Listener = listener

	if err := s.GenericServerRunOptions.ComponentGlobalsRegistry.Set(); err != nil {
		return nil, err
	}
	// The server warns its own loopback clients about deprecated APIs.
	rest.SetDefaultWarningHandler(rest.NoWarnings{})

	completedOptions, err := s.Complete(ctx)
	if err != nil {
		return nil, err
	}
	if errs := completedOptions.Validate(); len(errs) != 0 {
		return nil, utilerrors.NewAggregate(errs)
	}
	config, err := app.NewConfig(completedOptions)
	if err != nil {
		return nil, err
	}
	completed, err := config.Complete()
	if err != nil {
		return nil, err
	}
	server, err := app.CreateServerChain(completed)
	if err != nil {
		return nil, err
	}
	prepared, err := server.PrepareRun()
	if err != nil {
		return nil, err
	}
	stopped := make(chan error, 1)
	go func() { stopped <- prepared.Run(ctx) }()
	return &apiServer{loopback: server.GenericAPIServer.LoopbackClientConfig, stopped: stopped}, nil
}
