package session

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/openbuildkit/buildkit/api/status"
)

const healthCheckMethod = grpc_health_v1.Health_Check_FullMethodName

// healthConfig says when a session counts as stalled.
type healthConfig struct {
	interval time.Duration
	// timeout is the least that a check is given; a check that took long gives the next one
	// half as much again.
	timeout time.Duration
	// failures is how many checks in a row must fail.
	failures int
}

func defaultHealth() healthConfig {
	return healthConfig{interval: 5 * time.Second, timeout: 15 * time.Second, failures: 2}
}

// customHealth is asked for by a client: one failure is fatal.
func customHealth(timeout time.Duration) healthConfig {
	timeout = max(timeout, time.Second)
	return healthConfig{interval: timeout, timeout: timeout, failures: 1}
}

// monitor checks a client until ctx ends. It calls lose, once, if the client has stalled.
func monitor(ctx context.Context, cc grpc.ClientConnInterface, cfg healthConfig, lose func(error)) {
	client := grpc_health_v1.NewHealthClient(cc)
	ticker := time.NewTicker(cfg.interval)
	defer ticker.Stop()
	var last time.Duration
	failed := 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		timeout := max(cfg.timeout, last*3/2)
		start := time.Now()
		err := check(ctx, client, timeout)
		last = time.Since(start)
		if err == nil {
			failed = 0
			continue
		}
		if failed++; failed >= cfg.failures {
			lose(fmt.Errorf("no answer to health checks: %w", err))
			return
		}
	}
}

// check returns nil if the client answers, whatever the answer.
func check(ctx context.Context, client grpc_health_v1.HealthClient, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	_, err := client.Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	switch status.Code(err) {
	case codes.Canceled, codes.DeadlineExceeded, codes.Unavailable:
		return err
	}
	return nil
}
