"""Real handshakes, and what they prove. Works on any server; imports core only."""
