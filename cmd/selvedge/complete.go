package main

import (
	"context"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"selvedge/reconciler/hub/client"
)

// complete registers the completion of a flag that was just defined.
func complete(c *cobra.Command, flag string, f cobra.CompletionFunc) {
	if err := c.RegisterFlagCompletionFunc(flag, f); err != nil {
		panic(err) // the flag is not defined: a mistake in this program
	}
}

// completionTime is how long a shell waits for names from a hub.
const completionTime = 1500 * time.Millisecond

// offered is what a shell is handed: nothing in it means anything to a shell, or is an option.
var offered = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._/:=,+@-]*$`)

// completeWith completes with names from the hub; when it is away, with nothing.
func completeWith(f *hubFlags, names func(context.Context, *client.Client, string) ([]string, error)) cobra.CompletionFunc {
	return func(c *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(c.Context(), completionTime)
		defer cancel()
		hub, err := f.client()
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		defer hub.Close()
		found, err := names(ctx, hub, begun)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		found = slices.DeleteFunc(found, func(s string) bool { return !strings.HasPrefix(s, begun) || !offered.MatchString(s) })
		slices.Sort(found)
		directive := cobra.ShellCompDirectiveNoFileComp
		if len(found) > 0 && strings.HasSuffix(found[0], "/") {
			directive |= cobra.ShellCompDirectiveNoSpace
		}
		return slices.Compact(found), directive
	}
}

// first completes only the first argument.
func first(f cobra.CompletionFunc) cobra.CompletionFunc {
	return func(c *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return f(c, args, begun)
	}
}

func nodeNames(ctx context.Context, hub *client.Client, begun string) ([]string, error) {
	l, err := hub.Nodes(ctx, client.Query{Search: begun, Limit: 200})
	var names []string
	for _, n := range l.Items {
		names = append(names, n.Name)
	}
	return names, err
}

func appNames(ctx context.Context, hub *client.Client, _ string) ([]string, error) {
	l, err := hub.Apps(ctx, client.Query{Limit: 500})
	var names []string
	for _, a := range l.Items {
		names = append(names, a.Name)
	}
	return names, err
}

func workspaces(ctx context.Context, hub *client.Client, _ string) ([]string, error) {
	s, err := hub.Summary(ctx)
	var names []string
	for _, w := range s.Workspaces {
		names = append(names, w.Path)
	}
	return names, err
}

// folders are those above the workspaces that the caller sees, and these themselves.
func folders(ctx context.Context, hub *client.Client, _ string) ([]string, error) {
	s, err := hub.Summary(ctx)
	var names []string
	for _, w := range s.Workspaces {
		for dir := w.Path; strings.Contains(dir, "/"); dir = path.Dir(dir) {
			names = append(names, dir)
		}
	}
	return names, err
}

// conditions are those that hold somewhere.
func conditions(ctx context.Context, hub *client.Client, _ string) ([]string, error) {
	s, err := hub.Summary(ctx)
	return slices.Collect(maps.Keys(s.Conditions)), err
}

// labelPairs completes the last term of a selector.
func labelPairs(ctx context.Context, hub *client.Client, begun string) ([]string, error) {
	before := begun[:strings.LastIndexByte(begun, ',')+1]
	l, err := hub.Nodes(ctx, client.Query{Limit: 500})
	var pairs []string
	for _, n := range l.Items {
		for k, v := range n.Labels {
			pairs = append(pairs, before+k+"="+v)
		}
	}
	return pairs, err
}

// commits are shortened, as far as nobody typed more.
func commits(ctx context.Context, hub *client.Client, begun string) ([]string, error) {
	l, err := hub.Changes(ctx, 100)
	var hashes []string
	for _, ch := range l.Items {
		hashes = append(hashes, ch.Hash[:min(len(ch.Hash), max(12, len(begun)))])
	}
	return hashes, err
}

func guideNames(ctx context.Context, hub *client.Client, _ string) ([]string, error) {
	l, err := hub.Guides(ctx)
	var names []string
	for _, g := range l.Items {
		names = append(names, g.Name)
	}
	return names, err
}

func pendingCodes(ctx context.Context, hub *client.Client, _ string) ([]string, error) {
	l, err := hub.Pending(ctx)
	var names []string
	for _, p := range l.Items {
		names = append(names, p.Code)
	}
	return names, err
}

// containerNames completes a container of the app that the first argument of a command names.
func containerNames(c *cobra.Command) func(context.Context, *client.Client, string) ([]string, error) {
	return func(ctx context.Context, hub *client.Client, _ string) ([]string, error) {
		node, app, _, ok := client.ParseTarget(c.Flags().Arg(0))
		if !ok {
			return nil, nil
		}
		d, err := hub.Node(ctx, node)
		if err != nil || d.Report == nil {
			return nil, err
		}
		var names []string
		for _, a := range d.Report.Apps {
			for _, i := range a.Containers {
				if app == "" || a.Name == app {
					names = append(names, i.Name)
				}
			}
		}
		return names, nil
	}
}

// targets completes NODE/APP/CONTAINER piece by piece.
func targets(ctx context.Context, hub *client.Client, begun string) ([]string, error) {
	node, rest, ok := strings.Cut(begun, "/")
	if !ok {
		names, err := nodeNames(ctx, hub, begun)
		for i := range names {
			names[i] += "/"
		}
		return names, err
	}
	d, err := hub.Node(ctx, node)
	if err != nil || d.Report == nil {
		return nil, err
	}
	app, _, ok := strings.Cut(rest, "/")
	var names []string
	for _, a := range d.Report.Apps {
		if !ok {
			names = append(names, node+"/"+a.Name)
			continue
		}
		for _, i := range a.Containers {
			if a.Name == app {
				names = append(names, node+"/"+app+"/"+i.Name)
			}
		}
	}
	return names, nil
}
