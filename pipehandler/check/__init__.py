"""Being sure before the first mail: what `pipehandler check` looks at. Each function returns findings, and changes nothing."""
