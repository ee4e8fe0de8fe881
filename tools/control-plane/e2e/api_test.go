package e2e

// What the operator and its chart rely on: the API behaves as in a real cluster.

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const widgetCRD = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.test}
spec:
  group: example.test
  scope: Namespaced
  names: {kind: Widget, plural: widgets, singular: widget}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            properties: {size: {type: integer}}
            x-kubernetes-validations:
            - {rule: "!has(self.size) || self.size < 10", message: "size must be small"}
`

func widget(name, rest string) string {
	return fmt.Sprintf("{apiVersion: example.test/v1, kind: Widget, metadata: {name: %s%s", name, rest)
}

func TestAPI(t *testing.T) {
	i := startReady(t, t.TempDir())
	i.apply(t, widgetCRD)
	i.kubectl(t, "wait", "--for=condition=Established", "crd/widgets.example.test", "--timeout=20s")

	t.Run("CRDValidation", func(t *testing.T) {
		i.wantRefused(t, widget("w", "}, spec: {size: 10}}"), "size must be small")
	})

	t.Run("OwnersTakeDependentsAlong", func(t *testing.T) {
		i.apply(t, widget("owner", "}}"))
		uid := i.kubectl(t, "get", "widget", "owner", "-o", "jsonpath={.metadata.uid}")
		i.apply(t, fmt.Sprintf(`
apiVersion: v1
kind: ConfigMap
metadata:
  name: dependent
  ownerReferences: [{apiVersion: example.test/v1, kind: Widget, name: owner, uid: %s}]
`, uid))
		i.kubectl(t, "delete", "widget", "owner")
		eventually(t, func() error { return i.wantGone("configmap", "dependent") })
	})

	t.Run("NamespacesGoAway", func(t *testing.T) {
		i.kubectl(t, "create", "namespace", "goes")
		i.apply(t, widget("w", ", namespace: goes}}"))
		i.kubectl(t, "delete", "namespace", "goes", "--timeout=20s")
		if err := i.wantGone("namespace", "goes"); err != nil {
			t.Error(err)
		}
	})

	t.Run("ServiceAccountTokens", func(t *testing.T) {
		i.kubectl(t, "create", "namespace", "tokens")
		var token string
		eventually(t, func() (err error) { // the controller makes the service account
			token, err = i.try("", "create", "token", "default", "--namespace", "tokens")
			return err
		})
		asAccount := []string{"--kubeconfig=" + os.DevNull, "--token=" + token,
			"--server=" + i.kubectl(t, "config", "view", "-o", "jsonpath={.clusters[0].cluster.server}"),
			"--certificate-authority=" + filepath.Join(i.dir, "pki", "ca.crt")}
		if got := i.kubectl(t, append(asAccount, "auth", "whoami", "-o", "jsonpath={.status.userInfo.username}")...); got != "system:serviceaccount:tokens:default" {
			t.Errorf("the token is that of %q", got)
		}
		if _, err := i.try("", append(asAccount, "get", "secrets")...); err == nil || !strings.Contains(err.Error(), "Forbidden") {
			t.Errorf("a service account without rights may list secrets: %v", err)
		}
		review, err := i.try(fmt.Sprintf("{apiVersion: authentication.k8s.io/v1, kind: TokenReview, spec: {token: %s}}", token),
			"create", "-f", "-", "-o", "jsonpath={.status.user.username}")
		if err != nil || review != "system:serviceaccount:tokens:default" {
			t.Errorf("the token belongs to %q (%v)", review, err)
		}
	})

	t.Run("RBACAndAggregatedRoles", func(t *testing.T) {
		const account = "--as=system:serviceaccount:default:default"
		canI := func() error {
			if out, _ := i.try("", "auth", "can-i", "list", "widgets.example.test", account); out != "yes" {
				return errors.New("not allowed: " + out)
			}
			return nil
		}
		i.kubectl(t, "create", "rolebinding", "viewer", "--clusterrole=view", "--serviceaccount=default:default")
		if canI() == nil {
			t.Error("allowed before the role was aggregated")
		}
		i.apply(t, `
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: widget-viewer
  labels: {rbac.authorization.k8s.io/aggregate-to-view: "true"}
rules: [{apiGroups: [example.test], resources: [widgets], verbs: [get, list, watch]}]
`)
		eventually(t, canI)
	})

	t.Run("AdmissionPolicy", func(t *testing.T) {
		i.apply(t, `
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: no-evil}
spec:
  matchConstraints:
    resourceRules: [{apiGroups: [example.test], apiVersions: [v1], operations: [CREATE], resources: [widgets]}]
  validations: [{expression: "object.metadata.name != 'evil'", message: "no evil widgets"}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: no-evil}
spec: {policyName: no-evil, validationActions: [Deny]}
`)
		i.wantRefused(t, widget("evil", "}}"), "no evil widgets")
		eventually(t, func() error { // its expressions are checked against the schema
			out, err := i.try("", "get", "validatingadmissionpolicy", "no-evil", "-o", "jsonpath={.status.observedGeneration}")
			if err == nil && out != "1" {
				err = fmt.Errorf("observed generation %q", out)
			}
			return err
		})
	})

	t.Run("PodSecurity", func(t *testing.T) {
		i.kubectl(t, "create", "namespace", "strict")
		i.kubectl(t, "label", "namespace", "strict", "pod-security.kubernetes.io/enforce=restricted")
		pod := `
apiVersion: v1
kind: Pod
metadata: {name: p}
spec: {containers: [{name: c, image: example.test/c, securityContext: {privileged: true}}]}
`
		i.wantRefused(t, pod, "violates PodSecurity", "--namespace", "strict")
		if _, err := i.try(pod, "create", "-f", "-", "--dry-run=server"); err != nil {
			t.Errorf("a namespace without a policy turned it down: %v", err)
		}
	})

	t.Run("DryRunOfDeployments", func(t *testing.T) {
		i.kubectl(t, "create", "deployment", "d", "--image=example.test/d", "--dry-run=server")
		if err := i.wantGone("deployment", "d"); err != nil {
			t.Error(err)
		}
	})

	t.Run("EventsAndLeases", func(t *testing.T) {
		i.apply(t, `
apiVersion: coordination.k8s.io/v1
kind: Lease
metadata: {name: leader}
spec: {holderIdentity: me, leaseDurationSeconds: 15}
---
apiVersion: events.k8s.io/v1
kind: Event
metadata: {name: e}
eventTime: "2026-01-01T00:00:00.000000Z"
reportingController: example.test/e2e
reportingInstance: e2e
action: Test
reason: Test
type: Normal
note: a note
regarding: {apiVersion: v1, kind: Namespace, name: default, namespace: default}
`)
		if got := i.kubectl(t, "get", "events.v1.events.k8s.io", "e", "-o", "jsonpath={.note}"); got != "a note" {
			t.Errorf("the event says %q", got)
		}
	})

	t.Run("EndpointSlices", func(t *testing.T) {
		i.kubectl(t, "create", "service", "clusterip", "s", "--tcp=80")
		eventually(t, func() error {
			out, err := i.try("", "get", "endpointslices", "-l", "kubernetes.io/service-name=s", "-o", "name")
			if err == nil && out == "" {
				err = errors.New("there is none")
			}
			return err
		})
	})

	i.terminate(t)
}

// wantGone returns an error unless the API server says that there is no such object.
func (i *instance) wantGone(kind, name string) error {
	_, err := i.try("", "get", kind, name)
	if err == nil {
		return fmt.Errorf("%s %s is there", kind, name)
	}
	if !strings.Contains(err.Error(), "NotFound") {
		return err
	}
	return nil
}
