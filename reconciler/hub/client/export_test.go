package client

import "time"

// Beat changes how often commands are told that somebody is here, and how long the hub may
// say nothing.
func (c *Client) Beat(beat, silence time.Duration) { c.beat, c.silence = beat, silence }
