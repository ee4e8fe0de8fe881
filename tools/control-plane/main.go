// Command control-plane is a Kubernetes control plane in one binary: etcd, the
// kube-apiserver, the controllers that API objects need to behave as in a real
// cluster, and kubectl. It exists for development, demos and integration tests.
//
// This file picks the subcommand and nothing else.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"k8s.io/component-base/version"
)

const usage = `control-plane is a Kubernetes control plane in one binary, for development and tests.

Usage:
  control-plane serve --data-dir DIR [--port PORT] [--exit-with-stdin]
      Run etcd, the kube-apiserver and the basic controllers on 127.0.0.1.
      Prints the line "ready" once it can be used, and stops on SIGTERM or SIGINT.
      DIR/kubeconfig is a cluster-admin kubeconfig; DIR/control-plane.log has the logs.

  control-plane kubectl ARGS...
      kubectl. A link named "kubectl" to this binary does the same.

  control-plane version
      Print the version of Kubernetes.

  control-plane help
      Print this text.

Flags of serve:
  --data-dir DIR      Keeps all state: data, certificates, kubeconfig, log. Created if missing. Required.
  --port PORT         Port of the API server. Default: the port used last with this DIR,
                      else the first free one from %d.
  --exit-with-stdin   Stop as well when standard input reaches its end, so that a
                      test harness that dies leaves nothing behind.
`

func main() {
	os.Exit(run(os.Args))
}

// run returns the exit code: 0 for success, 1 for a failure, 2 for wrong usage.
func run(argv []string) int {
	if strings.TrimSuffix(filepath.Base(argv[0]), ".exe") == "kubectl" {
		return kubectl(argv[1:])
	}
	if len(argv) < 2 {
		fmt.Fprintf(os.Stderr, usage, firstPort)
		return 2
	}
	switch command, args := argv[1], argv[2:]; command {
	case "serve":
		return runServe(args)
	case "kubectl":
		return kubectl(args)
	case "version", "--version":
		fmt.Println(version.Get().GitVersion)
		return 0
	case "help", "--help", "-h":
		fmt.Printf(usage, firstPort)
		return 0
	default:
		fmt.Fprintf(os.Stderr, "control-plane: unknown command %q, see \"control-plane help\"\n", command)
		return 2
	}
}

func runServe(args []string) int {
	var o serveOptions
	flags := flag.NewFlagSet("serve", flag.ContinueOnError)
	flags.SetOutput(os.Stderr)
	flags.Usage = func() { fmt.Fprintf(flags.Output(), usage, firstPort) }
	flags.StringVar(&o.dataDir, "data-dir", "", "")
	flags.IntVar(&o.port, "port", 0, "")
	flags.BoolVar(&o.exitWithStdin, "exit-with-stdin", false, "")

	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	case flags.NArg() > 0:
		fmt.Fprintf(os.Stderr, "control-plane: serve takes no argument %q\n", flags.Arg(0))
		return 2
	case o.dataDir == "":
		fmt.Fprintln(os.Stderr, "control-plane: serve needs --data-dir")
		return 2
	case o.port < 0 || o.port > 65535:
		fmt.Fprintf(os.Stderr, "control-plane: --port %d is not a port\n", o.port)
		return 2
	}
	if err := serve(o); err != nil {
		// The standard error of the process may be the log file by now.
		fmt.Fprintf(userStderr, "control-plane: %v\n", err)
		return 1
	}
	return 0
}
