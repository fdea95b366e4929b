"""Programs that behave as the parts of the Storj network do, and misbehave on demand."""
