package engine

// observeSession decides what a web phone's word means.
func (k *correlator) observeSession(*SessionObservation) disposition { return dispNoOp }
