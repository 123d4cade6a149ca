// SPDX-License-Identifier: MIT OR Apache-2.0
// Receives JPEG over RTP with live555, the library that VLC receives RTP with, and writes each picture to a file
// that is named after its time in seconds since the first: receiver PORT DIRECTORY [WIDTH HEIGHT].
// Prints "ready", ends on SIGTERM.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "BasicUsageEnvironment.hh"
#include "GroupsockHelper.hh"
#include "liveMedia.hh"

namespace {

class PictureSink : public MediaSink {
  public:
    PictureSink(UsageEnvironment &env, std::string directory)
        : MediaSink(env), directory_(std::move(directory)), buffer_(new unsigned char[kSize]) {}
    ~PictureSink() override { delete[] buffer_; }

  private:
    static constexpr unsigned kSize = 4000000;

    static void frame(void *self, unsigned size, unsigned truncated, timeval time, unsigned) {
        static_cast<PictureSink *>(self)->write(size, truncated, double(time.tv_sec) + time.tv_usec / 1e6);
    }

    void write(unsigned size, unsigned truncated, double time) {
        if (first_ == 0) first_ = time;
        std::string name = directory_ + "/" + std::to_string(std::lround(time - first_)) + ".jpg";
        FILE *file = truncated ? nullptr : fopen(name.c_str(), "wb");
        if (file) {
            fwrite(buffer_, 1, size, file);
            fclose(file);
        }
        continuePlaying();
    }

    Boolean continuePlaying() override {
        if (!fSource) return False;
        fSource->getNextFrame(buffer_, kSize, frame, this, onSourceClosure, this);
        return True;
    }

    std::string directory_;
    unsigned char *buffer_;
    double first_ = 0;
};

} // namespace

int main(int argc, char **argv) {
    if (argc != 3 && argc != 5) return 2;
    auto *env = BasicUsageEnvironment::createNew(*BasicTaskScheduler::createNew());
    sockaddr_storage any{};
    any.ss_family = AF_INET;
    reinterpret_cast<sockaddr_in &>(any).sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    Groupsock socket(*env, any, Port(static_cast<portNumBits>(atoi(argv[1]))), 255);
    increaseReceiveBufferTo(*env, socket.socketNum(), 2000000);
    unsigned width = argc == 5 ? atoi(argv[3]) : 0, height = argc == 5 ? atoi(argv[4]) : 0;
    auto *source = JPEGVideoRTPSource::createNew(*env, &socket, 26, 90000, width, height);
    PictureSink sink(*env, argv[2]);
    sink.startPlaying(*source, nullptr, nullptr);
    printf("ready\n");
    fflush(stdout);
    env->taskScheduler().doEventLoop();
}
