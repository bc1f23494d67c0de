"""The tests: unit, properties, integration, end to end. All but the first two use the real servers."""
