// Package kubernetes holds no code. Its test is a module of its own, so that
// what decodes Kubernetes' objects is no dependency of the relay.
package kubernetes

import (
	"os"
	"reflect"
	"regexp"
	"slices"
	"testing"
	"time"

	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	policy "k8s.io/api/policy/v1"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// TestManifests builds the kustomization as `kubectl kustomize` does, decodes
// each object without leniency, and holds them against each other.
func TestManifests(t *testing.T) {
	objects, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), ".")
	if err != nil {
		t.Fatal(err)
	}
	var (
		namespace core.Namespace
		relay     apps.StatefulSet
		service   core.Service
		budget    policy.PodDisruptionBudget
		settings  core.ConfigMap
	)
	into := map[string]any{"Namespace": &namespace, "StatefulSet": &relay, "Service": &service, "PodDisruptionBudget": &budget, "ConfigMap": &settings}
	for _, o := range objects.Resources() {
		text, err := o.AsYAML()
		if err != nil {
			t.Fatal(err)
		}
		object, ok := into[o.GetKind()]
		if !ok {
			t.Fatalf("a %s is not expected, or there are two", o.GetKind())
		}
		delete(into, o.GetKind())
		if err := yaml.UnmarshalStrict(text, object); err != nil {
			t.Errorf("%s: %v\n%s", o.GetKind(), err, text)
		}
		if o.GetKind() != "Namespace" && o.GetNamespace() != namespace.Name && o.GetNamespace() != "blindrelay" {
			t.Errorf("the %s is in namespace %q", o.GetKind(), o.GetNamespace())
		}
	}
	if len(into) > 0 {
		t.Fatalf("missing: %v", into)
	}

	pod := relay.Spec.Template
	for what, selected := range map[string]map[string]string{
		"StatefulSet": relay.Spec.Selector.MatchLabels, "Service": service.Spec.Selector, "PodDisruptionBudget": budget.Spec.Selector.MatchLabels,
		"anti-affinity": pod.Spec.Affinity.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution[0].LabelSelector.MatchLabels,
	} {
		if len(selected) == 0 || !reflect.DeepEqual(selected, pod.Labels) {
			t.Errorf("%s selects %v, the relays are %v", what, selected, pod.Labels)
		}
	}
	if service.Spec.ClusterIP != core.ClusterIPNone || relay.Spec.ServiceName != service.Name {
		t.Errorf("the service is not headless, or not the relays': %+v", service.Spec)
	}
	if budget.Spec.MaxUnavailable.IntValue() != 1 || *relay.Spec.Replicas < 2 {
		t.Errorf("%v of %d relays may be away", budget.Spec.MaxUnavailable, *relay.Spec.Replicas)
	}
	c := pod.Spec.Containers[0]
	if c.EnvFrom[0].ConfigMapRef.Name != settings.Name || settings.Name == "relay" {
		t.Errorf("the settings are %s, and the relay takes %s", settings.Name, c.EnvFrom[0].ConfigMapRef.Name)
	}
	ports := map[string]core.ContainerPort{}
	for _, p := range c.Ports {
		ports[p.Name] = p
		if opened := p.Name != "ops"; opened != (p.HostPort == p.ContainerPort) {
			t.Errorf("port %s is the node's %d", p.Name, p.HostPort)
		}
	}
	for _, name := range []string{c.ReadinessProbe.HTTPGet.Port.StrVal, c.LivenessProbe.HTTPGet.Port.StrVal, service.Spec.Ports[0].TargetPort.StrVal, service.Spec.Ports[1].TargetPort.StrVal} {
		if _, ok := ports[name]; !ok {
			t.Errorf("there is no port %q", name)
		}
	}
	if ports["blindrelay"].Protocol != core.ProtocolUDP || service.Spec.Ports[0].Name != "blindrelay" {
		t.Error("there is no SRV record _blindrelay._udp")
	}
	drain, err := time.ParseDuration(settings.Data["BLINDRELAY_DRAIN_TIMEOUT"])
	if grace := time.Duration(*pod.Spec.TerminationGracePeriodSeconds) * time.Second; err != nil || grace < 2*drain+10*time.Second {
		t.Errorf("a drain takes %v (%v), the pod is given %v", drain, err, grace)
	}
	if want := []string{"/blindrelay", "drain", "--timeout", drain.String()}; !slices.Equal(c.Lifecycle.PreStop.Exec.Command, want) {
		t.Errorf("preStop runs %q, want %q", c.Lifecycle.PreStop.Exec.Command, want)
	}
	for _, m := range c.VolumeMounts {
		if !slices.ContainsFunc(pod.Spec.Volumes, func(v core.Volume) bool { return v.Name == m.Name }) {
			t.Errorf("there is no volume %q", m.Name)
		}
	}
	own, all := c.SecurityContext, pod.Spec.SecurityContext
	user := regexp.MustCompile(`(?m)^USER 65532:65532$`)
	image, err := os.ReadFile("../Dockerfile")
	if err != nil || !user.Match(image) || *all.RunAsUser != 65532 || !*all.RunAsNonRoot || all.SeccompProfile.Type != core.SeccompProfileTypeRuntimeDefault ||
		!*own.ReadOnlyRootFilesystem || *own.AllowPrivilegeEscalation || !slices.Equal(own.Capabilities.Drop, []core.Capability{"ALL"}) || *pod.Spec.AutomountServiceAccountToken {
		t.Errorf("the relay may do more than it needs: %+v %+v", all, own)
	}
}
