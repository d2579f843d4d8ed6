package exporter

import (
	"fmt"
	"strconv"
	"time"
)

// ParseBool reads an attribute that is a switch. Empty is true.
func ParseBool(key, value string) (bool, error) {
	if value == "" {
		return true, nil
	}
	b, err := strconv.ParseBool(value)
	if err != nil {
		return false, fmt.Errorf("non-bool value specified for %s: %w", key, err)
	}
	return b, nil
}

// ParseInt reads an attribute that is a number.
func ParseInt(key, value string) (int, error) {
	n, err := strconv.ParseInt(value, 10, 0)
	if err != nil {
		return 0, fmt.Errorf("non-integer value %s specified for %s: %w", value, key, err)
	}
	return int(n), nil
}

// Epoch is the attribute AttrEpoch. The zero value is that of an attribute that is not given.
type Epoch struct {
	given bool
	time  *time.Time
}

// ParseEpoch reads the attribute. Empty says that there is no such time, whatever the result
// says.
func ParseEpoch(value string) (Epoch, error) {
	t, err := parseSeconds(value)
	if err != nil {
		return Epoch{}, fmt.Errorf("invalid %s: %w", AttrEpoch, err)
	}
	return Epoch{given: true, time: t}, nil
}

// Time returns the time for a platform of a result, nil if there is none.
func (e Epoch) Time(r *Result, id string) (*time.Time, error) {
	if e.given {
		return e.time, nil
	}
	t, err := parseSeconds(string(r.Meta(KeyEpoch, id)))
	if err != nil {
		return nil, fmt.Errorf("invalid %s of the result: %w", KeyEpoch, err)
	}
	return t, nil
}

// parseSeconds reads a time in Unix seconds, nil if empty.
func parseSeconds(value string) (*time.Time, error) {
	if value == "" {
		return nil, nil
	}
	sec, err := strconv.ParseInt(value, 10, 64)
	if err != nil {
		return nil, err
	}
	t := time.Unix(sec, 0).UTC()
	if year := t.Year(); year < 1 || year > 9999 {
		return nil, fmt.Errorf("%s seconds are no time that can be written", value)
	}
	return &t, nil
}
