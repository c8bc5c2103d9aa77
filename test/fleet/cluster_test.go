package fleet

func beNATS(string) int { return 2 }
