package uplink

import "time"

func SetIdle(c *Config, d time.Duration) { c.idle = d }
