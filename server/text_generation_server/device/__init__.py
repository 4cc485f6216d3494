"""What runs on a device, and how numbers get there: streams, uploads, memory, recordings. Knows no models."""
