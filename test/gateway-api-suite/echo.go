//go:build tools

// Keeps the suite's backend among this module's requirements, so that `npm run conformance` can build it.
package suite

import _ "sigs.k8s.io/gateway-api/conformance/echo-basic"
