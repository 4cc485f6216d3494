"""What one process of a host has at a time: TCP ports and paths of sockets, and who has them. Knows no servers."""
