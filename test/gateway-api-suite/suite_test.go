// The official conformance suite of the Gateway API, as a test binary: `npm run conformance` builds it and runs it in a mesh.
package suite

import (
	"testing"

	"sigs.k8s.io/gateway-api/conformance"
)

func TestConformance(t *testing.T) {
	conformance.RunConformance(t)
}
