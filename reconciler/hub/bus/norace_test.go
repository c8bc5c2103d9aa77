//go:build !race

package bus

const patience = 1
