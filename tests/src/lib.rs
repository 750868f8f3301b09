//! Farms in network namespaces: the laboratory the cluster tests and the demonstration run in.
