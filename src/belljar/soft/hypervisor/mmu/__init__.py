"""Memory virtualization: memory slots, and the nested page tables that map them."""
