package uplink

import (
	"net/url"
	"time"
)

func SetIdle(c *Config, d time.Duration) { c.idle = d }

func SetProxy(c *Config, proxy *url.URL) {
	c.proxy = func(*url.URL) (*url.URL, error) { return proxy, nil }
}
