"""From whatever the user has to responses with token ids: read, label, check, tokenise, batch."""
