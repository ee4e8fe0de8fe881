package main

// This file decides when the control plane can be used. It only reads.

import (
	"context"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
)

const (
	readyPoll  = 25 * time.Millisecond
	readyLimit = 2 * time.Minute
)

// waitForAPI waits until the API server answers requests at all.
func waitForAPI(ctx context.Context, config *rest.Config) error {
	client, err := kubernetes.NewForConfig(rest.AddUserAgent(rest.CopyConfig(config), "readiness"))
	if err != nil {
		return err
	}
	return waitFor(ctx, "the API server to answer", func(ctx context.Context) error {
		_, err := client.CoreV1().Namespaces().List(ctx, metav1.ListOptions{Limit: 1})
		return err
	})
}

// waitUntilReady waits until the API server calls itself ready, the controllers
// have seen the whole state, and one can create pods in the default namespace.
func waitUntilReady(ctx context.Context, config *rest.Config, c *controllers) error {
	client, err := kubernetes.NewForConfig(rest.AddUserAgent(rest.CopyConfig(config), "readiness"))
	if err != nil {
		return err
	}
	if err := waitFor(ctx, "the API server to be ready", func(ctx context.Context) error {
		return client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
	}); err != nil {
		return err
	}
	if err := waitFor(ctx, "the controllers to run", func(ctx context.Context) error {
		if !c.synced(ctx) {
			return fmt.Errorf("their caches are not complete")
		}
		return nil
	}); err != nil {
		return err
	}
	// Both are made in the background, the service account after its namespace.
	return waitFor(ctx, "the default namespace", func(ctx context.Context) error {
		if _, err := client.CoreV1().ServiceAccounts(metav1.NamespaceDefault).Get(ctx, "default", metav1.GetOptions{}); err != nil {
			return err
		}
		_, err := client.CoreV1().Services(metav1.NamespaceDefault).Get(ctx, "kubernetes", metav1.GetOptions{})
		return err
	})
}

// waitFor polls until the check passes, and names what it waited for if it does
// not in time.
func waitFor(ctx context.Context, what string, check func(context.Context) error) error {
	start := time.Now()
	var last error
	err := wait.PollUntilContextTimeout(ctx, readyPoll, readyLimit, true, func(ctx context.Context) (bool, error) {
		// A request must not outlive the poll: early connections can hang.
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		last = check(ctx)
		return last == nil, nil
	})
	if err != nil {
		return fmt.Errorf("waited %s for %s: %w", time.Since(start).Round(time.Millisecond), what, last)
	}
	klog.InfoS("Waited", "for", what, "duration", time.Since(start).Round(time.Millisecond))
	return nil
}
