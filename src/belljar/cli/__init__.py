"""The command line: one command a file, each imported when it is called. A thin layer over the library."""
