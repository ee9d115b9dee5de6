"""What a module holds and keeps from call to call: found, put back, or made inputs and outputs."""
