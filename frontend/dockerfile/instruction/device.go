package instruction

import (
	"errors"
	"fmt"
	"strings"

	"github.com/tonistiigi/go-csvvalue"
)

// Device is an expanded --device flag.
type Device struct {
	// Name is what the daemon knows devices by, such as "vendor.example/class=name".
	Name string
	// Required tells that the step fails without the device.
	Required bool
}

var errNoDevice = errors.New("device requires a name")

// ParseDevice parses the value of a --device flag, "NAME[,required]", with expand applied to it. The
// name, which may have an equals sign, can also be given as "name=NAME".
func ParseDevice(value string, expand func(string) (string, error)) (*Device, error) {
	fields, err := csvvalue.Fields(value, nil)
	if err != nil {
		return nil, fmt.Errorf("failed to parse csv devices: %w", err)
	}
	d := &Device{}
	for _, field := range fields {
		if field, err = expand(field); err != nil {
			return nil, err
		}
		if err := d.field(field); err != nil {
			return nil, err
		}
	}
	if d.Name == "" {
		return nil, errNoDevice
	}
	return d, nil
}

func (d *Device) field(field string) (err error) {
	key, value, given := strings.Cut(field, "=")
	switch key = strings.ToLower(key); {
	case key == "required":
		d.Required, err = boolean(key, value, given)
		return err
	case key == "name" && given:
	default:
		value = field
	}
	if d.Name != "" {
		return fmt.Errorf("device name already set to %s, unexpected '%s'", d.Name, field)
	}
	d.Name = value
	return nil
}
