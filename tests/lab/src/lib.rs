//! Hosts, links and traffic for overplane.
