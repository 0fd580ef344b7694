"""Parameters, multiply-adds and other operations of an operator graph, and the operators without a formula."""
