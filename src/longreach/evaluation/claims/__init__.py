"""What the evidence table holds papers' claims to. Every module is a number that can be taken of a method: its name is `Claim.metric`."""
