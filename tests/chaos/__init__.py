"""Jobs on real clouds and a real cluster while workers, brokers and connections are killed: nothing may be lost."""
