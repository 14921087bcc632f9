"""What gives a candidate a number: a verifier, a reward model, a ranker of pairs, a judge."""
