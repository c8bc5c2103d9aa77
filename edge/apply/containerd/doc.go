// Package containerd is the apply.Runtime that runs containers on containerd, with
// nerdctl's packages in this process.
//
// Inputs are apply.Specs; everything made lies in a containerd namespace, a bridge
// network and folders of its own, labelled dev.selvedge.*.
//
// Guarantees: containers, iptables rules and networks of others are never touched;
// the agent's environment never reaches a container or its hooks; containerd
// restarts nothing by itself; loggers outlive containerd's restarts; what nerdctl
// leaves behind on removal (names, chains, folders, port reservers) is swept, if it
// is ours.
//
// It decides nothing: what runs, and when it starts again, is up to edge/apply.
//
// Containers start this very program again for their logs and network hooks: main
// (and TestMain) must call Reexec before anything else, and the program must stay at
// its path, replaced atomically.
package containerd
