// Package e2e runs the real commands against real peers: Git, an image registry, containerd.
//
// Its tests play what happens to a node in its life: pushes, good and bad ones, processes and
// networks that die, disks that fill. They need root, and run in network and mount namespaces
// of their own: ports, iptables and bridges of the machine are neither used nor changed.
package e2e
