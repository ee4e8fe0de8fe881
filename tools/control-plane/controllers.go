package main

// This file runs those controllers of the kube-controller-manager without which
// the API does not behave as in a real cluster: namespaces that go away when
// deleted, owners that take their dependents along, default service accounts,
// aggregated roles, endpoint slices, type checks of admission policies. They
// are wired as upstream does it, but one by one: the kube-controller-manager
// itself would add 300 packages to the binary, most of the kubelet included.
//
// There is deliberately nothing here that makes workloads run.

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiextensionsscheme "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset/scheme"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/cel/openapi/resolver"
	cacheddiscovery "k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	k8sscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/controller-manager/pkg/informerfactory"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/controller/certificates/rootcacertpublisher"
	"k8s.io/kubernetes/pkg/controller/clusterroleaggregation"
	"k8s.io/kubernetes/pkg/controller/endpointslice"
	"k8s.io/kubernetes/pkg/controller/garbagecollector"
	"k8s.io/kubernetes/pkg/controller/namespace"
	"k8s.io/kubernetes/pkg/controller/serviceaccount"
	"k8s.io/kubernetes/pkg/controller/validatingadmissionpolicystatus"
	"k8s.io/kubernetes/pkg/generated/openapi"
)

const (
	resyncPeriod        = 12 * time.Hour
	namespaceSyncPeriod = 5 * time.Minute
	// The garbage collector learns of new resources, such as those of a fresh
	// CRD, by asking at intervals. Upstream asks each 30 s; tests cannot wait
	// that long for the dependents of a custom resource to go.
	collectorSyncPeriod = 3 * time.Second
	restMapperReset     = 30 * time.Second
)

// controllers is the set of them, with what they share.
type controllers struct {
	loops     []func(context.Context)
	informers informers.SharedInformerFactory
	collector *garbagecollector.GarbageCollector
	logger    klog.Logger
	// start releases the informers that the garbage collector adds by itself.
	start chan struct{}
}

// newControllers builds all controllers; run makes them work.
func newControllers(ctx context.Context, config *rest.Config, caFile string) (*controllers, error) {
	b := builder{config: rest.CopyConfig(config)}
	// No throttling on this side: tests wait for these controllers, and the
	// server protects itself.
	b.config.QPS = -1

	rootCA, err := os.ReadFile(caFile)
	if err != nil {
		return nil, err
	}
	shared := informers.NewSharedInformerFactoryWithOptions(b.client("shared-informers"), resyncPeriod,
		informers.WithTransform(trimManagedFields))
	core := shared.Core().V1()
	c := &controllers{informers: shared, logger: klog.FromContext(ctx), start: make(chan struct{})}

	namespaceClient := b.client("namespace-controller")
	namespaces := namespace.NewNamespaceController(ctx, namespaceClient, b.metadata("namespace-controller"),
		namespaceClient.Discovery().ServerPreferredNamespacedResources,
		core.Namespaces(), namespaceSyncPeriod, corev1.FinalizerKubernetes)
	c.add(func(ctx context.Context) { namespaces.Run(ctx, 10) })

	serviceAccounts, err := serviceaccount.NewServiceAccountsController(c.logger, core.ServiceAccounts(), core.Namespaces(),
		b.client("service-account-controller"), serviceaccount.DefaultServiceAccountsControllerOptions())
	b.check(err)
	c.add(func(ctx context.Context) { serviceAccounts.Run(ctx, 1) })

	rootCAs, err := rootcacertpublisher.NewPublisher(core.ConfigMaps(), core.Namespaces(),
		b.client("root-ca-cert-publisher"), rootCA)
	b.check(err)
	c.add(func(ctx context.Context) { rootCAs.Run(ctx, 1) })

	roles := clusterroleaggregation.NewClusterRoleAggregation(shared.Rbac().V1().ClusterRoles(),
		b.client("clusterrole-aggregation-controller").RbacV1())
	c.add(func(ctx context.Context) { roles.Run(ctx, 5) })

	slices := endpointslice.NewController(ctx, core.Pods(), core.Services(), core.Nodes(),
		shared.Discovery().V1().EndpointSlices(), 100, b.client("endpointslice-controller"), 0)
	c.add(func(ctx context.Context) { slices.Run(ctx, 5) })

	mapper := restmapper.NewDeferredDiscoveryRESTMapper(
		cacheddiscovery.NewMemCacheClient(b.client("controller-discovery").Discovery()))
	c.add(func(ctx context.Context) {
		wait.UntilWithContext(ctx, func(context.Context) { mapper.Reset() }, restMapperReset)
	})

	policyClient := b.client("validatingadmissionpolicy-status-controller")
	policies, err := validatingadmissionpolicystatus.NewController(
		shared.Admissionregistration().V1().ValidatingAdmissionPolicies(),
		policyClient.AdmissionregistrationV1().ValidatingAdmissionPolicies(),
		&validating.TypeChecker{
			SchemaResolver: resolver.NewDefinitionsSchemaResolver(openapi.GetOpenAPIDefinitions, k8sscheme.Scheme, apiextensionsscheme.Scheme).
				Combine(&resolver.ClientDiscoveryResolver{Discovery: policyClient.Discovery()}),
			RestMapper: mapper,
		})
	b.check(err)
	c.add(func(ctx context.Context) { policies.Run(ctx, 5) })

	// The garbage collector watches all there is, but needs the metadata only; it
	// shares the informers of the others where there are some.
	monitors := informerfactory.NewInformerFactory(shared,
		metadatainformer.NewSharedInformerFactoryWithOptions(b.metadata("metadata-informers"), resyncPeriod,
			metadatainformer.WithTransform(trimManagedFields)))
	collectorClient := b.client("generic-garbage-collector")
	c.collector, err = garbagecollector.NewGarbageCollector(ctx, collectorClient, b.metadata("generic-garbage-collector"),
		mapper, garbagecollector.DefaultIgnoredResources(), monitors, c.start)
	b.check(err)
	c.add(func(ctx context.Context) { c.collector.Run(ctx, 20, collectorSyncPeriod) })
	c.add(func(ctx context.Context) { c.collector.Sync(ctx, collectorClient.Discovery(), collectorSyncPeriod) })

	if b.err != nil {
		return nil, fmt.Errorf("cannot set up the controllers: %w", b.err)
	}
	return c, nil
}

func (c *controllers) add(loop func(context.Context)) { c.loops = append(c.loops, loop) }

// run returns when the context has ended and all controllers have stopped.
func (c *controllers) run(ctx context.Context) {
	c.informers.Start(ctx.Done())
	close(c.start)
	var running sync.WaitGroup
	for _, loop := range c.loops {
		running.Go(func() { loop(ctx) })
	}
	running.Wait()
	c.informers.Shutdown()
}

// synced tells whether all controllers have seen the whole state once.
func (c *controllers) synced(ctx context.Context) bool {
	done, cancel := context.WithCancel(ctx)
	cancel() // only look, do not wait
	for _, ok := range c.informers.WaitForCacheSync(done.Done()) {
		if !ok {
			return false
		}
	}
	return c.collector.IsSynced(c.logger)
}

func trimManagedFields(obj any) (any, error) {
	if accessor, err := meta.Accessor(obj); err == nil && accessor.GetManagedFields() != nil {
		accessor.SetManagedFields(nil)
	}
	return obj, nil
}

// builder makes clients, each with the name of its controller as its user
// agent, and keeps the first error so that the wiring above stays readable.
type builder struct {
	config *rest.Config
	err    error
}

func (b *builder) check(err error) {
	if b.err == nil {
		b.err = err
	}
}

func (b *builder) client(name string) kubernetes.Interface {
	client, err := kubernetes.NewForConfig(rest.AddUserAgent(rest.CopyConfig(b.config), name))
	b.check(err)
	return client
}

func (b *builder) metadata(name string) metadata.Interface {
	client, err := metadata.NewForConfig(rest.AddUserAgent(rest.CopyConfig(b.config), name))
	b.check(err)
	return client
}
