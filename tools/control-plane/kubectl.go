package main

// This file is kubectl, unchanged: the same command tree that the kubectl
// binary of this Kubernetes release runs. It must not add flags or defaults, so
// that what works here works with any other kubectl.

import (
	"os"

	_ "k8s.io/client-go/plugin/pkg/client/auth" // kubeconfig users that need a login plugin
	"k8s.io/component-base/cli"
	"k8s.io/component-base/logs"
	"k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/util"
)

// kubectl runs kubectl with the given arguments and returns its exit code.
func kubectl(args []string) int {
	// kubectl reads os.Args in several places, for plugins and for -v.
	os.Args = append([]string{"kubectl"}, args...)
	_, _ = logs.GlogSetter(cmd.GetLogVerbosity(os.Args))
	if err := cli.RunNoErrOutput(cmd.NewDefaultKubectlCommand()); err != nil {
		util.CheckErr(err) // prints the error and exits with the right code
	}
	return 0
}
