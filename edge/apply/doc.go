// Package apply makes a node run the containers of its verified state.
//
// Inputs are a verify.State and what a Runtime observes; outputs are containers
// and a Status. It decides purely (diff of wanted and present containers, restart
// and probe rules) and acts thinly through the Runtime.
//
// Guarantees: every image is local before anything is touched; a container whose
// spec did not change is not touched; apps are isolated from each other's
// failures; containers outlive the agent and are adopted again by their labels;
// whatever drifts (killed, paused, deleted, config files gone) is put back; no image is
// removed that a state needs which may run again.
//
// It does not verify, store or roll back states: Apply reports Unhealthy and its
// caller goes back to the last good state. It never pulls while starting from disk
// unless an image has gone missing.
package apply
