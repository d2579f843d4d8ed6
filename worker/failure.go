package worker

import (
	"fmt"
	"strings"
)

// ProcessError returns err, which Run or Exec gave, in the words that users see. A Runtime does not
// add them itself: whoever runs a step of a build does, also to errors from before the process
// started. A nil err stays nil.
func ProcessError(args []string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("process %q did not complete successfully: %w", strings.Join(args, " "), err)
}
