package progress

import (
	"encoding/csv"
	"fmt"
	"runtime"
	"strconv"
	"strings"

	"github.com/containerd/log"
	"github.com/morikuni/aec"
)

// colors are those of rows; nil is none.
type colors struct {
	run, cancel, warning, fail aec.ANSI
	// log is for live output.
	log aec.ANSI
}

// parseColors reads the environment. Entries that make no sense are logged and left out.
func parseColors(getenv func(string) string) colors {
	if getenv(envNoColor) != "" {
		return colors{}
	}
	c := colors{run: aec.BlueF, cancel: aec.YellowF, fail: aec.RedF, log: aec.Faint}
	if runtime.GOOS == "windows" {
		c.run = aec.CyanF
	}
	text := getenv(envColors)
	if text == "" {
		return c
	}
	for _, entry := range strings.Split(text, ":") {
		if err := c.set(entry); err != nil {
			log.L.Warnf("%s: %v", envColors, err)
		}
	}
	return c
}

func (c *colors) set(entry string) error {
	key, value, ok := strings.Cut(entry, "=")
	if !ok {
		return fmt.Errorf("%q is not of the form name=color", entry)
	}
	color, err := parseColor(value)
	if err != nil {
		return err
	}
	switch strings.ToLower(key) {
	case "run":
		c.run = color
	case "cancel":
		c.cancel = color
	case "error":
		c.fail = color
	case "warning":
		c.warning = color
	default:
		return fmt.Errorf("unknown name %q", key)
	}
	return nil
}

func parseColor(value string) (aec.ANSI, error) {
	if color, ok := namedColors()[strings.ToLower(value)]; ok {
		return color, nil
	}
	fields, err := csv.NewReader(strings.NewReader(strings.Trim(value, `"`))).Read()
	if err != nil || len(fields) != 3 {
		return nil, fmt.Errorf("unknown color %q", value)
	}
	var rgb [3]uint8
	for i, f := range fields {
		n, err := strconv.ParseUint(strings.TrimSpace(f), 10, 8)
		if err != nil {
			return nil, fmt.Errorf("color %q: %q is not a number up to 255", value, f)
		}
		rgb[i] = uint8(n)
	}
	return aec.FullColorF(rgb[0], rgb[1], rgb[2]), nil
}

func namedColors() map[string]aec.ANSI {
	return map[string]aec.ANSI{
		"default":       aec.DefaultF,
		"black":         aec.BlackF,
		"blue":          aec.BlueF,
		"cyan":          aec.CyanF,
		"green":         aec.GreenF,
		"magenta":       aec.MagentaF,
		"red":           aec.RedF,
		"white":         aec.WhiteF,
		"yellow":        aec.YellowF,
		"light-black":   aec.LightBlackF,
		"light-blue":    aec.LightBlueF,
		"light-cyan":    aec.LightCyanF,
		"light-green":   aec.LightGreenF,
		"light-magenta": aec.LightMagentaF,
		"light-red":     aec.LightRedF,
		"light-white":   aec.LightWhiteF,
		"light-yellow":  aec.LightYellowF,
	}
}

func paint(color aec.ANSI, text string) string {
	if color == nil {
		return text
	}
	return color.Apply(text)
}
