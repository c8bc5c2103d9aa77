//go:build race

package bus

// patience is how many times as long everything may take: the race detector is in the way.
const patience = 4
