"""From a prompt to text: tokenizer, chat template, sampling, the loop, batches, the REPL. Knows sessions, no backend."""
