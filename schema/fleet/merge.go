package fleet

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
)

// Merged returns the app as it runs on a node: with the overrides that match it
// merged into its containers in the order of their list, by JSON merge patch (RFC 7396),
// and the list itself gone. The key names the set of overrides that matched: two nodes
// with one key get the same app. The app itself is not changed.
//
// The result is what the schema and the policies must be asked about again: an
// override may set what no container of the repo could.
func (a *App) Merged(name string, n Node) (merged App, key string, err error) {
	merged = *a
	key = a.MergeKey(name, n)
	merged.Override = nil
	merged.Container = maps.Clone(a.Container)
	for i := range a.Override {
		o := &a.Override[i]
		if !o.on(name, n) {
			continue
		}
		for _, cname := range slices.Sorted(maps.Keys(o.Container)) {
			c, ok := merged.Container[cname]
			if !ok {
				return App{}, "", fmt.Errorf("override %d: unknown container %q; the app has %v", i, cname, slices.Sorted(maps.Keys(a.Container)))
			}
			if merged.Container[cname], err = patch(c, o.Container[cname]); err != nil {
				return App{}, "", fmt.Errorf("override %d: container %q: %w", i, cname, err)
			}
		}
	}
	return merged, key, nil
}

// MergeKey returns the key that Merged would, without merging: whoever keeps one
// merged app a key need not merge for every node.
func (a *App) MergeKey(name string, n Node) (key string) {
	for i := range a.Override {
		if a.Override[i].on(name, n) {
			key += strconv.Itoa(i) + ","
		}
	}
	return key
}

func patch(c Container, p json.RawMessage) (Container, error) {
	base, err := json.Marshal(c)
	if err != nil {
		return Container{}, err
	}
	var b, q any
	if err := json.Unmarshal(base, &b); err != nil {
		return Container{}, err
	}
	if err := json.Unmarshal(p, &q); err != nil {
		return Container{}, err
	}
	out, err := json.Marshal(mergePatch(b, q))
	if err != nil {
		return Container{}, err
	}
	var merged Container
	if err := json.Unmarshal(out, &merged); err != nil {
		return Container{}, err
	}
	merged.fill()
	return merged, nil
}

// mergePatch is MergePatch of RFC 7396, section 2.
func mergePatch(target, patch any) any {
	p, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	t, ok := target.(map[string]any)
	if !ok {
		t = map[string]any{}
	}
	for k, v := range p {
		if v == nil {
			delete(t, k)
		} else {
			t[k] = mergePatch(t[k], v)
		}
	}
	return t
}
