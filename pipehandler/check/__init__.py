"""The checks of `pipehandler check`. Each function returns findings and changes nothing."""
