package containerd

import (
	"encoding/json"
	"net/url"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/nerdctl/v2/pkg/labels"
	"github.com/containerd/typeurl/v2"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// hookPath is all that hooks, CNI plugins and the port reserver get to see of an
// environment, whatever the agent's own is.
const hookPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// scrub takes out of a new container what nerdctl copies from this process: the
// environment, which goes into every hook, and the program's path, which reads
// "… (deleted)" after an upgrade.
func scrub(c *containers.Container, self string) error {
	if uri := c.Labels[labels.LogURI]; uri != "" {
		u, err := url.Parse(uri)
		if err != nil {
			return err
		}
		u.Path = self
		c.Labels[labels.LogURI] = u.String()
	}
	if c.Spec == nil {
		return nil
	}
	var s specs.Spec
	if err := json.Unmarshal(c.Spec.GetValue(), &s); err != nil {
		return err
	}
	if s.Hooks != nil {
		for _, list := range [][]specs.Hook{s.Hooks.CreateRuntime, s.Hooks.CreateContainer, s.Hooks.StartContainer, s.Hooks.Poststart, s.Hooks.Poststop} {
			for i := range list {
				list[i].Env = []string{hookPath}
			}
		}
	}
	if s.Annotations[labels.LogURI] != "" {
		s.Annotations[labels.LogURI] = c.Labels[labels.LogURI]
	}
	clean, err := typeurl.MarshalAny(&s)
	if err != nil {
		return err
	}
	c.Spec = clean
	return nil
}
