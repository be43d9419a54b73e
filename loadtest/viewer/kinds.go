package viewer

// Kinds returns every kind.
func Kinds() []Kind { return []Kind{VOD, Live, Progressive, Seek, Bulk, Music} }
